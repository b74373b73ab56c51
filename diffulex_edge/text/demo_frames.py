"""The sentences of the generated text: frames with slots, and the forms that agree with what stands in the slots.

In a frame {slot} is a word; {slot.o}, {slot.e}, {slot.t} its oblique, ergative and dative; {form:slot} agrees with
the slot in gender and number: {is:who}, {quality:thing}, {hab.go:who}; {form@ms} has a class of its own. A frame that
asks ends in "?".
"""

from __future__ import annotations

FRAMES = """
{who.e} {past} {shop} से {thing} {perf.buy:thing}
{who} {habit} {shop} {hab.go:who} {is:who}
{quality:thing} {thing} {price} रुपये {of:thing} {is:thing}
{this:thing} {thing} बहुत {quality:thing} {is:thing}
दुकानदार ने {thing.o} की कीमत {price} रुपये बताई
{who.t} {quality:thing} {thing} चाहिए
{who.t} {this:thing} {thing} बहुत पसंद {is:thing}
{past} {shop} में बहुत भीड़ थी
{who.e} {kin.o} को {thing} {perf.give:thing}
{whose:thing} {thing} {vehicle} में छूट {perf.go:thing}
{who} {habit} {subject} {hab.read:who} {is:who}
{who} {subject} में पास_हो {perf.go:who}
टीचर ने {number} घंटे {subject} {perf.teach:subject}
{who} लाइब्रेरी में किताबें {prog.read:who} {is:who}
{who} स्कूल में बहुत सवाल {hab.ask:who} {is:who}
{future} स्कूल में {subject} की परीक्षा होगी
{whose:kin} {kin} {city} में {hab.live:kin} {is:kin}
{whose:kin} {kin} {job} {is:kin}
{whose:kin} {kin} बहुत {nature:kin} {is:kin}
{kin.e} {who.t} एक कहानी सुनाई
{who} {own_o:kin} {kin.o} के साथ {place} {hab.go:who} {is:who}
आज {person.o} का जन्मदिन है
{who} {future} {kin.o} को फ़ोन {fut.do:who}
{who} {kin.o} की मदद {hab.do:who} {is:who}
आज {city} में बहुत {weather} {is:weather}
{future} {city} में {weather} {fut.become:weather}
{past} तेज़ हवा चल रही थी
{weather.o} के कारण {who} {place} नहीं {perf.go:who}
{season} में {city} का मौसम {climate} रहता है
{who.e} {past} {dish} {perf.eat:dish}
{who} {habit} {drink} {hab.drink:who} {is:who}
{kin.e} {taste:dish} {dish} {perf.make:dish}
{this:fruit} {fruit} बहुत {taste:fruit} {is:fruit}
{who.t} {dish} पसंद नहीं {is:dish}
{who} होटल में {dish} {prog.eat:who} {is:who}
{dish.o} में नमक कम है
{who} {drink.o} में चीनी नहीं {hab.put:who}
{who} {future} {vehicle} से {city} {fut.go:who}
{who} {past} {city} से {perf.come:who}
{city} की ट्रेन {number} घंटे लेट है
{who} {hour} बजे {place} {perf.reach:who}
यहाँ से {city} तक {number} घंटे लगते हैं
{who.e} {city} का टिकट {price} रुपये में खरीदा
यह बस {place} के पास रुकती है
{who} {habit} {field} में {game} {hab.play:who} {is:who}
{who.e} {past} {game} का मैच देखा
{who.t} {hobby} अच्छा लगता है
{who} {past} फ़िल्म देखने {perf.go:who}
{who} गाना {prog.sing:who} {is:who}
{festival} पर हम {dish} {hab.make@mp} हैं
{festival} के दिन {who} {kin.o} के घर {fut.go:who}
{who} {workplace} में काम {hab.do:who} {is:who}
आज {hour} बजे {workplace} में मीटिंग है
{who.e} {kin.o} को ईमेल भेजा
{who} आज बहुत {mood} {is:who}
{who} {past} बहुत {mood} {was:who}
{who} {habit} {hour} बजे {hab.wake:who} {is:who}
{who} {hour} बजे {fut.sleep:who}
{who} {language} {hab.speak:who} {is:who}
किसान खेत में {crop} बो रहा है
{who} ऑफ़िस कब {fut.go:who}?
{city} की ट्रेन कब आएगी?
{whose@ms} फ़ोन नंबर क्या है?
क्या {who} {future} मैच {fut.see:who}?
क्या यह बस {place} जाएगी?
ऑनलाइन {quality:thing} {thing} कहाँ {fut.find:thing}?
{kin.o} का बर्थडे कब है?
टैक्सी से {city} का किराया कितना है?
"""
